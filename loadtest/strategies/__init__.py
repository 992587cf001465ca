"""The same orders through the engine and through what people do today.

strategies goes through them: baselines and redis_lua; report is what is shown.
"""
