"""From any picture to 28×28 digits to labels."""
