-- One row.
INSERT INTO orders VALUES (nextval('orders_id'), 'c-20931', 'placed', 129.95, '2026-11-21 12:00', 'leave it at the door', :data);
