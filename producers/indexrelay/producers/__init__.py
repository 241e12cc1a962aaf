"""Jobs: from analysis results to committed entries and a batch event.

Works without FAISS; knows nothing of builds or reloads but what readers' presence says.
"""
