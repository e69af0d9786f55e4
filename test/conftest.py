from hypothesis import settings

# Time is no reason to fail: the machine may be busy.
settings.register_profile("dit_policy_ros", deadline=None)
settings.load_profile("dit_policy_ros")
