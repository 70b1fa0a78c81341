"""How an answer becomes rows of styled text, and how rows reach a terminal, each as few times as possible."""
