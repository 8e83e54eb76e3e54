"""The laboratory: experiments that shaped the codecs, run from a checkout with ``python -m lab``.

It is no part of what is installed. It may import everything of lichen; nothing of lichen imports it. What the
experiments found is in docs/lab, one page a question.
"""
