"""What comes in on sockets and widgets: checked, and mapped over lists as the host does."""
