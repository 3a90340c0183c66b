"""Where the training job runs: started, followed, cancelled; one launcher for each place."""
