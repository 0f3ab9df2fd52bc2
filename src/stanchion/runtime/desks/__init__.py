"""What is no run's and outlives them all: schedules, webhooks, keys, connections, memory, shares and quotas; a desk each."""
