"""How decisions travel: nodes, messages and answers over Flower's two interfaces."""
