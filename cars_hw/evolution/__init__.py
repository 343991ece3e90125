"""Evolution: populations, variation, selection by pNSGA-III, and the search that uses them."""
