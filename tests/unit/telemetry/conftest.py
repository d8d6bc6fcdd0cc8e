"""What the daemon switches off for its whole process is off in these tests, whichever of them runs first."""

import prometheus_client

prometheus_client.disable_created_metrics()
