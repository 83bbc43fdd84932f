//! What an operator does with deckies.
