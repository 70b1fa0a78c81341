"""`pensieve chat`: `command` is the command, the rest of the folder is what it is made of.

Nothing is imported here: `ask` needs a screen alone.
"""
