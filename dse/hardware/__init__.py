"""Technology, datapath, SRAM, DRAM and named designs."""
