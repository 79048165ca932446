"""What happens to the data: catalog, profile, plan, crosswalk, load, ledger and proof."""
