"""What an author asks before anything runs: are prompts stable, skills sound, tools found, policies as meant."""
