"""`python -m segquant_trt.cli`."""

from segquant_trt.cli.app import run

if __name__ == "__main__":
    run()
