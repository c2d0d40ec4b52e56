"""Programs that take the place of what a machine without a GPU cannot run. Each says that it is one."""
