"""A real PEC on copies of the databases, in a closed room: a stack of containers of which nothing gets out."""
