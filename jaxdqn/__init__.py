"""Train a population of DQN agents in one compiled program and let Optuna choose the next ones."""
