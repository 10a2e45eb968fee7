from tests.catalog.conftest import catalog, database, database_url, migrated  # noqa: F401 - fixtures
