"""Training of VDOT: data, distillation, fine-tuning."""
