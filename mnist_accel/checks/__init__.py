"""Is this machine right? The doctor, the certificate, the comparison of two traces, and the speed benchmark."""
