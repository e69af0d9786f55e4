"""How each family is fed by encoders and a robot: one module per family, behind the port of ``binding``."""
