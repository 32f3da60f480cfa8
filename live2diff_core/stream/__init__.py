"""Which frame meets the model when: session, pipeline, schedule, noise, guidance, prompts."""
