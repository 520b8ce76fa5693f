"""What a distillation run needs, worked out without a GPU."""
