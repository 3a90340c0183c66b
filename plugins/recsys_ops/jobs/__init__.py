"""From the history and the catalogue to a training job: the job of a day, and those of trials."""
