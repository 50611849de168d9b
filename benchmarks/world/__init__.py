"""One world: how fast it loads and is edited live, and what a thousand players in it cost."""
