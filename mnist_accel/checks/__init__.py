"""Is this machine right? The doctor, the self-test and the speed benchmark."""
