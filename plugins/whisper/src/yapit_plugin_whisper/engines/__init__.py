"""What computes: CTranslate2 and transformers behind one interface, which is that of faster-whisper's model."""
