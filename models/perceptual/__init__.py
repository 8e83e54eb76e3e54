"""Measures that agree with people's eyes, differentiable, so that codecs and their encoders can aim at them."""
