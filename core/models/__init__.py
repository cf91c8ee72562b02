"""Everything that makes, checks or describes a base model. `loader.load_model` is the only way in."""
