"""Coverage-guided fuzzing of the readers: ``make fuzz``.

``python -m tests.fuzz`` starts processes that atheris guides through ``app.formats`` (``target``), where the files that
they make (``mutator``) are read and watched (``watch``). Meanwhile stock torch judges what was accepted
(``judging``). What is wrong is kept as a file with a line that brings it back (``findings``).
"""
