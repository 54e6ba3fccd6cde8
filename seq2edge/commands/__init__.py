"""The commands of `seq2edge`, by what a user does with them."""
