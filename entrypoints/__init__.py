"""What `MLproject` calls: parameters in, one function of the pipeline out."""
