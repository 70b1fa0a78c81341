"""One resident model in one supervised child process."""
