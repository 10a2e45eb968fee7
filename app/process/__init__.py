"""Server processes: the supervisor, its workers, their memory and their logs."""
