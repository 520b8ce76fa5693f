"""The training programs of VDOT: data, pretraining of the tiny models and distillation."""
