"""System 2: what turns images and instructions into the features that the policies take."""
