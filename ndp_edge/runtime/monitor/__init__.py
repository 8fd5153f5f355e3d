"""The line monitor: a small web page for the person at the line (docs/monitor.md)."""
