from hypothesis import settings

# A deadline would fail on a busy machine, not on a wrong result.
settings.register_profile("nanosq", deadline=None, max_examples=50)
settings.register_profile("long", deadline=None, max_examples=10_000)
settings.load_profile("nanosq")
