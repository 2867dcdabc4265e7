"""The live view: everything the sensors show and what was made of it, in the viewer of Rerun.

``drawing`` turns raw items into what can be shown, ``canvas`` logs it to Rerun, ``layout`` arranges it, ``feed``
decodes messages for it; ``live`` takes them from topics and ``recorded`` from a bag.
"""
