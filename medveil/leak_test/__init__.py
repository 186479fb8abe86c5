"""`medveil leak-test`: recognisable patients are planted in a running consortium, and searched for wherever they must
not be. Patients and their spellings, the flows of every role, the places and what is searched there, the verdict."""
