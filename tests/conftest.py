"""What all tests share."""

pytest_plugins = [
    "tests.fix_docker",
    "tests.fix_standin",
    "tests.fix_stack",
    "tests.fix_server",
    "tests.fix_merge",
    "tests.fix_proof",
    "tests.fix_backup",
    "tests.fix_sample",
    "tests.fix_production",
    "tests.fix_promotion",
]
