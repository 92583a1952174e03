"""What is fitted: estimators on arrays, in the manner of scikit-learn."""
