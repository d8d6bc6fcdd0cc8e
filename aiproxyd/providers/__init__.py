"""Floor 2: framed pieces to canonical events, one parser an API, and the providers' facts as data."""
