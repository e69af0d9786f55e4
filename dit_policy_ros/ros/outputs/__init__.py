"""How each type of controller is told what to do."""
