//! What crosses khamsin's crates: harness shared by the tests in `tests/tests/`.
