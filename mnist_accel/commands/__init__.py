"""The commands: parse → configure → one call → exit code. They import torch only when there is work to do."""
