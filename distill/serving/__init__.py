"""A model behind HTTP: requests in the forms of several servers, scored in shared batches.

dialects.py reads requests and writes answers; scoring.py turns them into tokens and scores; batching.py lets requests
share forward passes; service.py joins these, app.py gives them addresses, and server.py listens.
"""
