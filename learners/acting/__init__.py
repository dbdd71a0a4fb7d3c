"""What policies of several algorithms act with: exploration, noise, slates, and the policies themselves."""
