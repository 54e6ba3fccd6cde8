"""`python -m seq2edge` is the seq2edge command."""

from seq2edge.cli import main

if __name__ == "__main__":
    main()
